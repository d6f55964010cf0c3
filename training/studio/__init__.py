"""A local web page on which texts become motions at once (mclip studio)."""
