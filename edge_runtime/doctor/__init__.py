"""`prime-spark edge doctor`: what is wrong with this box, and the command that puts it right.

`checklist` goes through everything: `versions`, `binding` and `hailo` look at the accelerator,
`board` at the computer, `serving` at the runtime. They read through a `box.Box` and say what they
found as `findings.Check`s; between the two are functions of what was read.
"""

from edge_runtime.doctor.box import Box, Done, Run, Unread, commands, this_box
from edge_runtime.doctor.checklist import Subject, examine
from edge_runtime.doctor.findings import Check, Report

__all__ = [
    "Box",
    "Check",
    "Done",
    "Report",
    "Run",
    "Subject",
    "Unread",
    "commands",
    "examine",
    "this_box",
]
