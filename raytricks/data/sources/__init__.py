"""One file a kind of data set; each makes a Catalog, decoding as little as it can."""
