"""Networks that classify images: medtool's own, timm's by name, and the fusion of images with metadata."""
