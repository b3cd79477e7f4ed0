"""One file a kind of data set; each makes a DatasetSplits, decoding as little as it can."""
