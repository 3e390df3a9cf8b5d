"""Programs that measure: what the search space covers, and how good samplers and schedulers are."""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as trainers does: no peer has slower kernels
