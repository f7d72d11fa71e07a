"""Every rule of the audit, in one table; docs/reference/audit.md shows it."""

from __future__ import annotations

from medtool.split.findings import Rule, Severity

_LOW, _MEDIUM, _HIGH = Severity.LOW, Severity.MEDIUM, Severity.HIGH
_MAKE = "medtool split make MANIFEST, or medtool split audit MANIFEST --fix FILE to move the fewest images"

GROUP_IN_TWO_PARTS = Rule(
    "G101",
    "group-in-two-parts",
    _HIGH,
    "Images of one patient (or lesion, ...) are in several of train, val and test: the score rests on what was learnt.",
    _MAKE,
)
GROUP_IN_TWO_FOLDS = Rule(
    "G102",
    "group-in-two-folds",
    _HIGH,
    "Images of one patient (or lesion, ...) are in several folds: every fold is scored on patients that it trained on.",
    _MAKE,
)
IDS_EQUAL_WHEN_NORMALISED = Rule(
    "G103",
    "ids-equal-when-normalised",
    _MEDIUM,
    "Ids differ only in case, white space, leading zeros, Unicode form or a trailing .0, and may name one patient.",
    "ask whoever made the table whether they are the same; if so, write them the same way",
)
UNKNOWN_GROUPS = Rule(
    "G104",
    "unknown-groups",
    _LOW,
    "Rows name no patient (or lesion, ...): whether they are apart from the others cannot be known.",
    "find the ids where the data came from, and name their column (--group COLUMN); if every image is of somebody else,"
    " say so: --group none",
)
GROUP_AT_TWO_SITES = Rule(
    "G105",
    "patient-at-two-sites",
    _LOW,
    "One patient has images from several sites: a split by site cuts this patient.",
    "check that the ids are unique across sites; if they are, keep the patient's sites together",
)
GROUP_WITH_TWO_LABELS = Rule(
    "G106",
    "group-with-two-labels",
    _LOW,
    "One patient (or lesion, ...) has images with different labels: right for some data, a slip in others.",
    "look at the rows; a lesion has one diagnosis, a patient may have several",
)
GROUP_IN_BOTH_MANIFESTS = Rule(
    "G107",
    "group-in-both-manifests",
    _HIGH,
    "The other manifest has images of the same patient (or lesion, ...): one is no independent test of the other.",
    "leave these patients out of one of the two",
)
IDS_EQUAL_IN_BOTH_MANIFESTS = Rule(
    "G108",
    "ids-equal-in-both-when-normalised",
    _MEDIUM,
    "An id of the other manifest differs only in case, white space, leading zeros, Unicode form or a trailing .0.",
    "ask whoever made the tables whether they are the same; if so, leave these patients out of one of the two",
)

SAME_PATH = Rule(
    "D201",
    "same-path-twice",
    _HIGH,
    "Several rows name one file and are in different parts: the same image is trained on and scored.",
    "keep one of the rows",
)
SAME_FILE = Rule(
    "D202",
    "same-file-across-parts",
    _HIGH,
    "Files with the same bytes are in different parts: the same image is trained on and scored.",
    _MAKE,
)
SAME_PIXELS = Rule(
    "D203",
    "same-pixels-across-parts",
    _HIGH,
    "Files with the same pixels are in different parts: the same image is trained on and scored.",
    _MAKE,
)
NEAR_DUPLICATE = Rule(
    "D204",
    "near-duplicate-across-parts",
    _HIGH,
    "Altered copies of one picture (compressed again, resized, mirrored, turned, cropped) are in different parts.",
    "medtool split make MANIFEST --keep-duplicates-together, or medtool split audit MANIFEST --fix FILE",
)
DUPLICATE_IN_ONE_PART = Rule(
    "D205",
    "duplicate-in-one-part",
    _LOW,
    "One picture is there several times: it counts more than others, and intervals come out too narrow.",
    "keep one of them, or say that it was left in",
)
DUPLICATE_WITH_OTHER_LABEL = Rule(
    "D206",
    "duplicate-with-other-label",
    _MEDIUM,
    "One picture has different labels in different rows: one of them is wrong.",
    "look at the pairs (--html FILE) and correct the label",
)
DUPLICATE_WITH_OTHER_PATIENT = Rule(
    "D207",
    "duplicate-with-other-patient",
    _MEDIUM,
    "One picture has different patients (or lesions, ...) in different rows: these ids do not keep patients apart.",
    "look at the pairs (--html FILE) and correct the ids; split with --keep-duplicates-together",
)
DUPLICATE_IN_BOTH_MANIFESTS = Rule(
    "D208",
    "duplicate-in-both-manifests",
    _HIGH,
    "The other manifest has the same picture: one is no independent test of the other.",
    "leave these images out of one of the two",
)

FOLDS_ENSEMBLED = Rule(
    "F301",
    "test-patients-seen-by-other-folds",
    _HIGH,
    "The networks of the folds are to vote together, but each patient is in the training part of all other folds.",
    "score each fold's network on its own fold, or keep a fixed test part: medtool split make --folds 5 --test 0.2",
)
VALIDATION_IS_TEST = Rule(
    "F302",
    "validation-used-as-test",
    _MEDIUM,
    "One part both chooses (epoch, threshold, model) and measures: the score is that of the luckiest choice.",
    "medtool split make MANIFEST, which keeps a part for each",
)
GROUP_PARTLY_USED = Rule(
    "F303",
    "group-partly-used",
    _MEDIUM,
    "Some images of a patient (or lesion, ...) are in a part and others in none: their choice decides the score.",
    "use all images of a patient or none, or say by which rule one was chosen",
)
FOLDS_INCOMPLETE = Rule(
    "F304",
    "folds-incomplete",
    _MEDIUM,
    "The folds do not cover the images once each: numbers are missing, or rows have a fold and a test part at once.",
    "medtool split make MANIFEST --folds N",
)

NO_SPLIT = Rule(
    "F305",
    "no-split",
    _MEDIUM,
    "No row has a split or a fold: nothing says what is trained on and what is scored.",
    "medtool split make MANIFEST; or hold it against what was trained on: --against OTHER, --run RUN",
)

SITE_PREDICTS_LABEL = Rule(
    "C401",
    "site-predicts-label",
    _MEDIUM,
    "Site (or device) and label go together: a network can score well by telling the sites apart.",
    "report scores per site; test on a site that was not trained on: medtool split make --leave-one-site-out",
)
COLUMN_LEAKS_LABEL = Rule(
    "C402",
    "column-leaks-label",
    _MEDIUM,
    "A column nearly gives the label away, or by its name is known only once the diagnosis is.",
    "do not train on this column",
)
PART_PREDICTS_LABEL = Rule(
    "C403",
    "parts-differ",
    _LOW,
    "Labels (or sites) are spread unequally over the parts, more than chance would do.",
    "medtool split make MANIFEST --stratify label",
)
FILE_PREDICTS_LABEL = Rule(
    "C404",
    "file-predicts-label",
    _MEDIUM,
    "Size or format of the files goes with the label: a network may tell the sources apart instead of the disease.",
    "find out where the files came from; bring all images to one size and format in the same way",
)

RUN_HAS_SEEN_GROUP = Rule(
    "R501",
    "run-has-seen-patient",
    _HIGH,
    "The run, or one that it started from, trained or chose on patients (or lesions, ...) that it is to be scored on.",
    "score it on other patients",
)
RUN_HAS_SEEN_IMAGE = Rule(
    "R502",
    "run-has-seen-image",
    _HIGH,
    "The run, or one that it started from, trained or chose on images that it is to be scored on.",
    "score it on other images",
)
RUN_IS_LEAKY = Rule(
    "R503",
    "run-is-leaky",
    _MEDIUM,
    "The run, or one that it started from, was trained with --allow-leak.",
    "train again on a clean split",
)

MASK_MISSING = Rule(
    "M601", "mask-missing", _MEDIUM, "A mask that the manifest names is not there.", "find the file, or empty the cell"
)
MASK_UNREADABLE = Rule(
    "M602",
    "mask-unreadable",
    _MEDIUM,
    "A mask cannot be read as whole-number labels.",
    "save it as a PNG without colours, alpha or lossy compression",
)
MASK_OTHER_SIZE = Rule(
    "M603",
    "mask-of-other-size",
    _MEDIUM,
    "A mask has not the size of its image: it belongs to another, or was resized.",
    "find the mask that was drawn on this image",
)
MASK_ODD_VALUES = Rule(
    "M604",
    "mask-with-odd-values",
    _MEDIUM,
    "A mask holds values that its data set has nowhere else: a trace of resizing or lossy compression.",
    "make it again from the original, resized with nearest neighbours",
)
MASK_EMPTY = Rule(
    "M605",
    "mask-empty-or-full",
    _LOW,
    "A mask marks nothing, or every pixel.",
    "look at it; scores of such images are undefined or trivial",
)
MASKS_IDENTICAL = Rule(
    "M606",
    "masks-identical",
    _MEDIUM,
    "Images that differ have the very same mask.",
    "look at them; one mask was copied to the wrong name",
)

IMAGE_MISSING = Rule(
    "I701", "image-missing", _MEDIUM, "An image that the manifest names is not there.", "find the file, or drop the row"
)
IMAGE_UNREADABLE = Rule(
    "I702", "image-unreadable", _MEDIUM, "An image cannot be read.", "fetch the file again, or drop the row"
)
IMAGE_BLANK = Rule("I703", "image-blank", _LOW, "An image has one value everywhere.", "look at it, or drop the row")

CLASS_IMBALANCE = Rule(
    "B801",
    "class-imbalance",
    _LOW,
    "One class is far more frequent than another: accuracy says little.",
    "report scores per class, and the area under the precision-recall curve",
)
CLASS_MISSING = Rule(
    "B802",
    "class-missing-in-part",
    _MEDIUM,
    "A class has no image in one of the parts: it is not learnt there, or not measured.",
    "medtool split make MANIFEST --stratify label",
)
CLASS_OF_FEW_GROUPS = Rule(
    "B803",
    "class-of-few-patients",
    _LOW,
    "A class of a part has images of very few patients (or lesions, ...): its score has hardly any precision.",
    "report intervals that resample patients, and do not rank methods by this class",
)
NO_LABEL = Rule(
    "B804",
    "rows-without-label",
    _LOW,
    "Rows in a part have no label: they are neither learnt nor measured.",
    "fill in the label, or take the rows out of the split",
)

RULES: tuple[Rule, ...] = tuple(value for value in globals().copy().values() if isinstance(value, Rule))
