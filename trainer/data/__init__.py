"""From a file or a name to three splits of arrays, with every statistic from the train split alone."""
