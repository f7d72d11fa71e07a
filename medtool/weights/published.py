"""Which weights are published where, with the hash and the size that tell whether a file is the one."""

from __future__ import annotations

from dataclasses import dataclass

from medtool.errors import UnknownNameError

_SAM_CITATION = "Kirillov et al., Segment Anything, ICCV 2023"
_SAM_ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything"


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """One published file of weights.

    Attributes
    ----------
    name
        As on the command line; segmenters of the same name use it.
    url
        Where ``medtool weights get`` fetches it.
    sha256
        Of the whole file, in lower-case hexadecimal.
    size_bytes
        Of the whole file.
    file_name
        As published, and in the weights folder.
    licence, citation
        Of the weights.
    """

    name: str
    title: str
    url: str
    sha256: str
    size_bytes: int
    file_name: str
    licence: str
    citation: str


KNOWN = (
    WeightsInfo(
        name="sam-vit-b",
        title="Segment Anything, ViT-B",
        url=f"{_SAM_ADDRESS}/sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        size_bytes=375_042_383,
        file_name="sam_vit_b_01ec64.pth",
        licence="Apache-2.0",
        citation=_SAM_CITATION,
    ),
    WeightsInfo(
        name="sam-vit-l",
        title="Segment Anything, ViT-L",
        url=f"{_SAM_ADDRESS}/sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        size_bytes=1_249_524_607,
        file_name="sam_vit_l_0b3195.pth",
        licence="Apache-2.0",
        citation=_SAM_CITATION,
    ),
    WeightsInfo(
        name="sam-vit-h",
        title="Segment Anything, ViT-H",
        url=f"{_SAM_ADDRESS}/sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        size_bytes=2_564_550_879,
        file_name="sam_vit_h_4b8939.pth",
        licence="Apache-2.0",
        citation=_SAM_CITATION,
    ),
    WeightsInfo(
        name="medsam-vit-b",
        title="MedSAM, ViT-B",
        url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        sha256="34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
        size_bytes=375_049_145,
        file_name="medsam_vit_b.pth",
        licence="CC-BY-4.0",
        citation="Ma et al., Segment anything in medical images, Nature Communications 15:654, 2024",
    ),
    WeightsInfo(
        name="mobile-sam",
        title="MobileSAM, TinyViT",
        url=(
            "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM"
            "/34bbbfdface3c18e5221aa7de6032d7220c6c6a1/weights/mobile_sam.pt"
        ),
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        size_bytes=40_728_226,
        file_name="mobile_sam.pt",
        licence="Apache-2.0",
        citation="Zhang et al., Faster Segment Anything, arXiv:2306.14289, 2023",
    ),
)


def known() -> tuple[WeightsInfo, ...]:
    """Return the weights that ``medtool weights get`` can fetch."""
    return KNOWN


def info(name: str) -> WeightsInfo:
    """Return what is published under ``name``.

    Raises
    ------
    UnknownNameError
        If nothing is; gives the nearest name.
    """
    for each in known():
        if each.name == name:
            return each
    raise UnknownNameError("set of weights", name, known=[each.name for each in known()], hint="medtool weights list")
