"""Folders that `tunedeck export onnx` writes."""
