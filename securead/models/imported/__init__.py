"""Detectors that others have fitted: scikit-learn's, PyOD's and PyTorch's, as programs that encryption can carry."""
