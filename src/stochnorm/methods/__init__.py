"""Methods to keep fine-tuning from over-fitting, one file each; `catalogue.py` lists them."""
