"""Harnesses that hurt charlm: kills, full disks, hostile files and texts, long loads. By hand; see README.md there."""
