"""``modelwire bundle``: bundles made, copied and removed. What removes them spans the parts."""

from modelwire.bundle_gc import gc
from trainer.bundle_cli import bundle

bundle.add_command(gc)

__all__ = ["bundle"]
