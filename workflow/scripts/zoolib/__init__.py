"""Galaxy Zoo from volunteers' votes to posteriors: the logic behind every rule of the pipeline."""
