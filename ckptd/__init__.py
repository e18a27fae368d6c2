"""ckptd: a checkpoint manager for training hosts. ARCHITECTURE.md says which room does what."""
