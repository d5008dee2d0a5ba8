"""fMRI: volumes, regions, BOLD runs of BIDS, and single-trial betas."""
