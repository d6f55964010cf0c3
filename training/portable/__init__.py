"""A model that travels: a folder that others load, ONNX for other programs, and a page that generates by itself."""
