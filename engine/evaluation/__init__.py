"""What a subnet is worth: accuracy from inherited weights, and plain figures such as MACs."""
