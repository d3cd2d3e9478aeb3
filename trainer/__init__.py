"""The trainer: a panel of daily sales in, a bundle with an ONNX model and its evidence out.

OpenMP reads its wait policy once, when scikit-learn loads it, so it is set here, before any module
of this package can import scikit-learn: threads that spin while they wait slow each other down on a
shared machine (measured: twice the CPU time). An environment that says otherwise is left alone.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
