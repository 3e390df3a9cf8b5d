"""What the input side delivers, training left out: ours, ``tf.data`` and Keras. Start with ``__main__``."""
