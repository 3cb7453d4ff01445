"""Learners of other libraries, as lines; each needs the extra of its name, and loads it when used.

`onnx.Onnx`: a frozen model from a file. `sklearn.ScikitLearn`: estimators of scikit-learn that
learn by `partial_fit`. `torch.Torch`: modules of PyTorch.

For lines that are retrained: `lightgbm.LightGBM`, boosted trees; `forests.Forest`, those of
scikit-learn.
"""
