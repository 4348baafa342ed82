"""How fast the package is beside what people would otherwise write, each subject in processes of its own."""
