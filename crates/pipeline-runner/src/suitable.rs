//! What an engine cannot do of a pipeline, known before anything runs.

use coracle_model::EngineKind;
use coracle_pipeline::{Step, StepImage};

/// What of these steps an engine cannot do, and what to do about it; `None`: it can run them.
pub fn unsuitable<'s>(steps: impl IntoIterator<Item = &'s Step>, engine: EngineKind) -> Option<(String, &'static str)> {
    if engine != EngineKind::Process {
        return None;
    }
    steps.into_iter().find_map(|step| {
        let name = &step.name;
        if let StepImage::Named(image) = &step.image {
            return Some((
                format!("the step {name} runs in the image {image}, and the process engine runs no images"),
                "use engine = \"docker\", or take `image` out: then the step runs with what the app was built into",
            ));
        }
        let service = step.services.first()?;
        Some((
            format!("the step {name} has the service {} beside it, and the process engine runs no images", service.image),
            "use engine = \"docker\", or give the step a database of yours by `secrets`",
        ))
    })
}
