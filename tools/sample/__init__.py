"""The painters of the sample archives; what they make is committed with its digests."""
