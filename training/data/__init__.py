"""Crops of a store on the device, and which of them a step takes."""
