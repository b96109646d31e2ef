"""An encoder, a decoder that begins with the encoder's last states, and attention between them: a pair at a time.

Nothing is padded, nothing is aligned and nothing is side by side: one source, one target, a step at a time.

Sizes: S steps of the source, T of the target, H hidden of the decoder, D directions of the encoder, each with H / D
hidden, L layers, V_s and V_t the two vocabularies.

    encoder, layer l of direction ->   a->_l<s> = cell(x_l<s>, a->_l<s-1>)         the state before is zero
    encoder, layer l of direction <-   a<-_l<s> = cell(x_l<s>, a<-_l<s+1>)         the state after is zero
    what the next layer reads          x_l+1<s> = [a->_l<s>, a<-_l<s>]
    decoder, layer l begins with       the encoder's last states of its layer l: [-> at S, <- at 1]
    decoder's inputs                   the zero vector, then the target's tokens; d<t> is its top output
    attention                          h<s> = [a->_L<s>, a<-_L<s>]; a~<t> as in `attention`
    output                             y<t> = softmax(o<t> W_y + b_y), o<t> = a~<t>, or d<t> without attention

Parameters, by path: encoder/ as in `directions`, decoder/ as in `network`; attention/w (2 H, H), attention/b (H,);
output/w (H, V_t), output/b (V_t,). All functions let complex numbers through.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tests.reference import attention, network
from tests.reference.directions import Factors, Kind, read
from tests.reference.network import Array, Ids

Parameters = Mapping[str, Array]


def encode(parameters: Parameters, source: Ids, kind: Kind, factors: Factors | None = None) -> tuple[Array, Array]:
    """h (S, H), and what the decoder's layers begin with, (L, states, H), of a source of ids (S,)."""
    if len(source) == 0:
        size = kind.directions * len(parameters["encoder/layer0/w_h"])
        return np.zeros((0, size)), np.zeros((kind.num_layers, len(network.find_cell(kind.cell).STATES), size))
    outputs, last = read(parameters, "encoder/", parameters["encoder/embedding"][source], kind, factors)
    h = np.concatenate([outputs[:, d] for d in range(kind.directions)], axis=1)
    return h, np.concatenate([last[:, d] for d in range(kind.directions)], axis=2)


def decode(
    parameters: Parameters, inputs: Ids, state_0: Array, kind: Kind, factors: Sequence[Array] | None = None
) -> Array:
    """d (T, H), of inputs (T,) and the states before the first step (L, states, H)."""
    cell = network.find_cell(kind.cell)
    rows = network.embed(parameters["decoder/embedding"], inputs[None])[0]
    decoder = {path.removeprefix("decoder/"): array for path, array in parameters.items()}
    for layer in range(kind.num_layers):
        p = network.layer_parameters(decoder, layer)
        state = tuple(each[None] for each in state_0[layer])
        outputs = []
        for row in rows:
            state = cell.step(row[None], state, p, kind.activation)
            outputs.append(state[0][0])
        rows = np.stack(outputs) if factors is None else np.stack(outputs) * factors[layer]
    return rows


def log_probs(
    parameters: Parameters,
    source: Ids,
    inputs: Ids,
    kind: Kind,
    source_factors: Factors | None = None,
    target_factors: Sequence[Array] | None = None,
) -> Array:
    """The log probabilities (T, V_t) of the token that follows each of the decoder's inputs (T,).

    Args:
        source_factors, target_factors: what dropout multiplies each layer's outputs by: see `directions` for the
            source; (T, H) of each layer for the target.
    """
    h, state_0 = encode(parameters, source, kind, source_factors)
    d = decode(parameters, inputs, state_0, kind, target_factors)
    if "attention/w" in parameters:
        _, context = attention.attend(d, h)
        d = attention.attentional(d, context, parameters["attention/w"], parameters["attention/b"])
    return network.log_softmax(d @ parameters["output/w"] + parameters["output/b"])
