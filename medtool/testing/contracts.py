"""The contracts that a plugin's tests subclass.

::

    from medtool.testing.contracts import SegmenterContract

    class TestMySegmenter(SegmenterContract):
        name = "my-segmenter"
"""

from medtool.testing.architecture_contract import ArchitectureContract
from medtool.testing.checks import Contract
from medtool.testing.dataset_contract import DatasetContract
from medtool.testing.segmenter_contract import SegmenterContract

__all__ = ["ArchitectureContract", "DatasetContract", "SegmenterContract", "contract_of"]

_CONTRACTS: dict[str, type[Contract]] = {
    contract.kind: contract for contract in (ArchitectureContract, DatasetContract, SegmenterContract)
}


def contract_of(kind: str, name: str, **attributes: object) -> Contract:
    """Return the contract of an installed plugin, ready for :func:`medtool.testing.checks.run_checks`.

    Parameters
    ----------
    kind
        ``dataset``, ``architecture`` or ``segmenter``.
    name
        The plugin's name on the command line.
    attributes
        Further attributes of the contract class, such as ``settings`` of a data set's.
    """
    base = _CONTRACTS[kind]
    contract: type[Contract] = type(base.__name__, (base,), {"name": name, **attributes})
    return contract()
