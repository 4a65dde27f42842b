"""What `shards.synth` makes a data set from: drawn pictures, pairs of them, composites, files."""
