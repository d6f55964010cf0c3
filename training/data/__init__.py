"""Crops of a store on the device."""
