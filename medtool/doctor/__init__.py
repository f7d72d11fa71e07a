"""What of this machine and this installation works, what does not, and how to mend it.

Every check is by itself: one that fails, or whose own code crashes, hides no other. Whatever loads other people's
compiled code (torch, torchvision, plugins) runs in a process of its own, so that even a crash of that process is a row.
"""

from medtool.doctor.check import Check, Status, worst
from medtool.doctor.examination import examine

__all__ = ["Check", "Status", "examine", "worst"]
