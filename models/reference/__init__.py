"""The networks of the five reference systems, 000 to 004, rebuilt layer by layer.

Widths, order of concatenation, padding and interpolation are those of the published networks, so
that parameter counts and costs are theirs too. What differs is said where it differs: all of them
return raw logits behind one interface, `forward(background, composite) -> Prediction`.
"""
