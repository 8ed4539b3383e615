//! Carries out a plan.
mod place;
mod environment;
