"""Splits in the files of other programs: nnU-Net, CLAM and MONAI."""
