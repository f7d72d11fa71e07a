"""Published weights: where they come from, whether they are on this machine, and getting them there.

All weights lie in one folder, :func:`folder`, under the file names that their publishers gave them. A file gets its
final name only after its SHA-256 has been compared with the published one, so :func:`find` looks at the size alone;
``medtool weights list --verify`` reads every byte again, and whoever loads weights for a result writes the hash of what
was loaded into that result's lineage. Only :mod:`medtool.weights.download` touches the network.
"""

from medtool.weights.delivery import get, install
from medtool.weights.published import WeightsInfo, info, known
from medtool.weights.shelf import Found, State, find, folder, look_at, look_at_all, require

__all__ = [
    "Found",
    "State",
    "WeightsInfo",
    "find",
    "folder",
    "get",
    "info",
    "install",
    "known",
    "look_at",
    "look_at_all",
    "require",
]
