"""A trained model as a file for other runtimes, proven to answer as the model does.

graph, any_size   what is exported: preprocessing, net, calibrated softmax
onnx_file, torch_file   the formats
parity      run the file in a fresh process and compare
int8        a quantised file, and what it costs
exporting   all of it, in order
"""
