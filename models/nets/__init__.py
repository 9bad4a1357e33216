"""Networks written node by node with `onnx.helper`, in the way common exporters write them."""
