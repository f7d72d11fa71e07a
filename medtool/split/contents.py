"""What only the bytes of the files betray: one file under two names in two parts, or one that a parent run has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medtool.errors import LeakError
from medtool.split import catalogue
from medtool.split.findings import Rule
from medtool.split.marks import Leak
from medtool.split.recognise import Recognised
from medtool.split.seen import Seen

_NAMED = 3


def gate_contents(
    sha256s: Mapping[str, str], parts: Mapping[str, str], *, runs: Sequence[Seen] = (), is_leak_allowed: bool
) -> tuple[Leak, ...]:
    """Return the leaks that the contents of a split's files show, or refuse them.

    Parameters
    ----------
    sha256s
        Of each file's bytes, by the image's id.
    parts
        Train, val or test, by the same ids.
    runs
        What the runs have seen that the new one starts from.
    is_leak_allowed
        Whether to go on with leaks.

    Raises
    ------
    LeakError
        On a leak, unless leaks are allowed.
    """
    ids: dict[str, list[str]] = {}
    for name, sha256 in sha256s.items():
        ids.setdefault(sha256, []).append(name)
    copies = [names for names in ids.values() if len({parts[name] for name in names}) > 1]
    known = Recognised(runs).contents
    seen = [names for sha256, names in ids.items() if sha256 in known and any(parts[name] == "test" for name in names)]
    found: list[tuple[Rule, list[list[str]]]] = [
        (rule, cases) for rule, cases in ((catalogue.SAME_FILE, copies), (catalogue.RUN_HAS_SEEN_IMAGE, seen)) if cases
    ]
    if found and not is_leak_allowed:
        told = "; ".join(_one_line(rule, cases) for rule, cases in found)
        raise LeakError(
            f"the split leaks: {told}",
            hint="medtool split make MANIFEST --keep-duplicates-together; --allow-leak goes on, and marks every result",
        )
    return tuple(Leak(rule.code, len(cases)) for rule, cases in found)


def _one_line(rule: Rule, cases: list[list[str]]) -> str:
    subjects = [" and ".join(names[:_NAMED]) for names in cases[:_NAMED]]
    more = ", ..." if len(cases) > len(subjects) else ""
    number = "1 case" if len(cases) == 1 else f"{len(cases)} cases"
    return f"{rule.code} {rule.name}, {number} ({', '.join(subjects)}{more})"
