"""Networks that keras.applications lacks, built from Keras layers so that published weights fit.

Each module has its builders, and the names of its layers in a published state dict for ``networks.conversion``.
Imports nothing else of ``networks``.
"""
