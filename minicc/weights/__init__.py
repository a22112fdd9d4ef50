"""Official weights in and out: names (layouts, parts), files (read, unpickle), kinds (infer, forms), load, export."""
