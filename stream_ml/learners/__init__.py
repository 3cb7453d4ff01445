"""Learners of other libraries, as lines; each needs the extra of its name, and loads it when used.

`lightgbm.LightGBM`: boosted trees, for a line that is retrained. `onnx.Onnx`: a frozen model from a
file. `sklearn.ScikitLearn`: estimators of scikit-learn that learn by `partial_fit`.
"""
