"""Downloads of data sets from the hosts that publish them."""
