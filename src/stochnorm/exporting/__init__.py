"""The model of a run as a file for other programs: ONNX, PyTorch, TorchScript, safetensors, timm."""
