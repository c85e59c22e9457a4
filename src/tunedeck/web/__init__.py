"""The page of `tunedeck ui`: NiceGUI over the package's functions; what it shows is read from folders."""
