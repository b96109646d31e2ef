"""Harnesses that hurt charlm: kills, full disks, hostile files and texts, long loads. Run by hand; see README.md there."""
