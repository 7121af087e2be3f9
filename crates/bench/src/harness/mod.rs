//! Shared by all tables. A table defines what is measured ([`table::Table`]); the harness does everything else.
//!
//! | to | look in |
//! | --- | --- |
//! | write a table | [`table`], [`info`], [`prelude`], [`view`] |
//! | run it: options, devices, resuming, Slurm | [`run`], [`settings`], [`row_store`], [`slurm`] |
//! | train and evaluate networks | [`trainer`], [`dense`], [`network`], [`images`] |
//! | fine-tuned models, streams of tasks | [`finetuned`], [`tasks`], [`arrivals`]; [`streams`], [`dissimilar`] |
//! | store measurements, judge claims with them | [`record`], [`results`], [`claim`], [`paper`] |
//! | show it | [`render`], [`picture`], [`matrix`]; all together [`report`] |

pub mod arrivals;
pub mod claim;
pub mod dense;
pub mod dissimilar;
pub mod finetuned;
pub mod images;
pub mod info;
pub mod matrix;
pub mod memory;
pub mod network;
pub mod numbers;
pub mod paper;
pub mod picture;
pub mod prelude;
pub mod record;
pub mod render;
pub mod report;
pub mod results;
pub mod row_store;
pub mod run;
pub mod settings;
pub mod slurm;
pub mod streams;
pub mod table;
pub mod tasks;
pub mod trainer;
pub mod view;
