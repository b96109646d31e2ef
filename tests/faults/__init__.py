"""Harnesses that hurt charlm: kills, full disks, hostile files and texts, long loads. See README.md there."""
