"""``charlm sample``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import raw_option, threads_option
from charlm.cli.output import Output, is_terminal, say
from charlm.cli.progress import announce_compilation

if TYPE_CHECKING:
    from charlm.text.tokenizer import Tokenizer
    from charlm.workflows.sample import Sample

EPILOG = """\b
Examples:
  charlm sample names.npz -n 10                       ten lines
  charlm sample names.npz -n 10 --novel names.txt     none of the text itself
  charlm sample names.npz --beam 50 -n 5 --log-prob   the five likeliest
  charlm sample book.npz --prompt "Once" --temperature 0.8 --max-length 2000
  charlm sample towns.npz --label Wyllin -n 10        ten of a kind

A sample begins with the prompt and ends where the model ends its line, paragraph or file, or after --max-length
tokens. Each is followed by a line break, paragraphs and files also by an empty line if another comes; the bytes of a
byte model of files are written as they are, with nothing added.

A model that was trained with --condition label writes what a label asks for, and needs --label. Its --novel corpus is
label<TAB>text like its training text; a text that stands there is refused, whatever its label.

--temperature acts first, then --top-k, then --top-p. The unknown token is not drawn, the others share its
probability: see --allow-unk. A sample is never empty. Sample i of a --seed is the same text for any -n and --threads.

--beam looks for the likeliest whole texts: by total log probability, not normalised by length, so they tend to be
short. For a model of files, which would end at once, it looks for the likeliest text of --max-length tokens.

--log-prob counts the prompt, and the end if the sample has one, under the model as it is, whatever --temperature,
--top-k, --top-p and --allow-unk say: what score says of the same text. In models of paragraphs and files the line
break is then written \\n and the backslash \\\\.

--json gives index, label (null for a model without), text, tokens, prompt_tokens (how many are the prompt's),
log_prob_nats, prompt_log_prob_nats (the prompt's part of it), ended ("eos" or "length"), seed (null where nothing is
random) and refused (draws that --novel refused before this one; null without it). The bytes of a byte model are
U+0000 to U+00FF there.
"""

MOST_TOKENS = 10**9  # what nobody waits for; compiled code has integers of 64 bits


@click.command(epilog=EPILOG)
@click.argument("model", metavar="MODEL")
@click.option("-n", "--num-samples", "count", type=click.IntRange(min=1), default=1, metavar="N", help="How many.")
@click.option("--label", metavar="NAME", help="What to write, for a model that was trained with labels: one of them.")
@click.option("--prompt", metavar="TEXT", help="Begin with this text.")
@click.option("--prompt-file", metavar="FILE", help="Begin with the text of this file, - for standard input.")
@click.option(
    "--on-unknown",
    type=click.Choice(["error", "unk", "skip"]),
    default="error",
    help="What to do with a symbol of the prompt that the model does not know: refuse the prompt, take it for <unk>, "
    "or leave it out.",
)
@click.option(
    "--max-length",
    type=click.IntRange(1, MOST_TOKENS),
    metavar="N",
    help="Stop after N drawn tokens.  [default: 1000; for a model of files 500, or 100 words]",
)
@click.option(
    "--temperature",
    type=float,
    metavar="T",
    help="Below 1 the likely becomes likelier, above 1 all tokens become more alike.  [default: 1]",
)
@click.option(
    "--top-k", type=click.IntRange(1, MOST_TOKENS), metavar="K", help="Draw from the K likeliest tokens only."
)
@click.option(
    "--top-p",
    type=float,
    metavar="P",
    help="Draw only from the fewest tokens whose probabilities add up to P.",
)
@click.option("--greedy", is_flag=True, help="Take the likeliest token each time.")
@click.option(
    "--beam", type=click.IntRange(1, 1000), metavar="W", help="Search for the -n likeliest texts, W at a time."
)
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Repeat the samples of this seed.  [default: new]"
)
@click.option("--allow-unk", is_flag=True, help="Let the unknown token be drawn, which is printed as <unk>.")
@click.option("--log-prob", is_flag=True, help="Print a line for each sample: its log probability in nats, a tab, it.")
@click.option(
    "--novel",
    metavar="CORPUS",
    help="Draw a line or paragraph again if it stands in this text or token file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each sample, one a line.")
@raw_option
@threads_option()
def sample(
    model: str,
    seed: int | None,
    log_prob: bool,
    as_json: bool,
    raw: bool,
    threads: int | None,
    **options: Any,
) -> None:
    """Draw new text from a model.

    MODEL is a file that train wrote. The text appears as it is drawn.
    """
    # Here, not above: with them --help would take ten times as long.
    from charlm.workflows.sample import Piece, SampleOptions
    from charlm.workflows.sample import sample as run

    request = SampleOptions(**options) if seed is None else SampleOptions(seed=seed, **options)

    from charlm.workflows.model_files import load_model  # what is slow to import, after what may be wrong at once

    announce_compilation(live=not is_terminal(sys.stdout))  # where a piece of text may stand
    loaded = load_model(model, threads)
    tokenizer = loaded.tokenizer
    is_plain = not (log_prob or as_json)
    if is_plain and request.count > 1 and (tokenizer.level, tokenizer.sequence) == ("byte", "file"):
        raise click.UsageError("nothing would separate the samples of this model, which may hold any byte; use --json.")
    output = Output(raw=raw, as_bytes=tokenizer.level == "byte" and not as_json, as_json=as_json)
    tells_seed = request.is_random and seed is None and is_terminal(sys.stderr)
    in_pieces = False
    refused = 0
    for event in run(loaded.model, loaded.vocabulary, tokenizer, request, loaded.labels, model):
        if tells_seed:  # not before: the prompt may have been refused
            tells_seed = False
            say(f"--seed {request.seed} repeats this")
        if isinstance(event, Piece):
            if is_plain:
                in_pieces = True
                output.write(event.text)
            continue
        refused += event.refused or 0
        if as_json:
            output.write(_json(event, request.seed if request.is_random else None) + "\n")
        elif log_prob:
            text = event.text
            if tokenizer.sequence != "line":
                text = text.replace("\\", r"\\").replace("\n", r"\n")
            output.write(f"{event.log_prob_nats:.6f}\t{text}\n")
        else:
            if event.index and tokenizer.sequence != "line":
                output.write("\n")
            end = "" if _ends_itself(event.text, tokenizer, output) else "\n"
            output.write(("" if in_pieces else event.text) + end)
    output.finish()
    if request.novel is not None:
        say(f"{refused} refused: in {request.novel}")


def _ends_itself(text: str, tokenizer: Tokenizer, output: Output) -> bool:
    """Whether nothing is to be written after a sample."""
    if tokenizer.sequence != "file":
        return False
    return text.endswith("\n") or (tokenizer.level == "byte" and not output.is_terminal)


def _json(sample: Sample, seed: int | None) -> str:
    return json.dumps(
        {
            "index": sample.index,
            "label": sample.label,
            "text": sample.text,
            "tokens": sample.tokens,
            "prompt_tokens": sample.prompt_tokens,
            "log_prob_nats": sample.log_prob_nats,
            "prompt_log_prob_nats": sample.prompt_log_prob_nats,
            "ended": sample.ended,
            "seed": seed,
            "refused": sample.refused,
        },
        ensure_ascii=False,
    )
