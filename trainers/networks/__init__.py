"""Networks: backbones as Keras models, their frozen prefixes, what is above them, their weights and costs.

May import ``config``, ``store`` and what is below. Start with ``prefix`` and ``network``; ``backbone`` builds and loads
what they cut. ``prefix_index``, ``costs`` and ``weight_sources`` answer without TensorFlow.
"""
