"""How a synthetic set lies on disk: one file per reference system's layout.

The counterparts that read these names back are `shards/layouts`.
"""

from shards.synthetic.layouts.class_folders import ClassFolders
from shards.synthetic.layouts.global_number import GlobalNumber
from shards.synthetic.layouts.layout import Layout
from shards.synthetic.layouts.numbered_flip import NumberedFlip
from shards.synthetic.layouts.relation_file import RelationFile
from shards.synthetic.layouts.tenk_sets import TenKSets

LAYOUTS: dict[str, type[Layout]] = {
    "relation-file": RelationFile,
    "global-number": GlobalNumber,
    "class-folders": ClassFolders,
    "tenk-sets": TenKSets,
    "numbered-flip": NumberedFlip,
}
