//! `[middlewares.NAME.KIND]`: what is done on the way.

use coracle_proxy_table::MiddlewareId;
use coracle_toml_reading::Entry;

use crate::reading::Reader;
use crate::table::Draft;

pub(crate) fn read(reader: &mut Reader<'_>, entries: &[Entry<'_, '_>], draft: &mut Draft) {
    for entry in entries {
        let Some(mut middleware) = reader.middleware(entry) else { continue };
        if let Some(service) = middleware.service()
            && !draft.services.contains(&service.0)
        {
            reader.unknown(entry, "service", &service.0, draft.services.iter().map(String::as_str));
        }
        // Files and folders are relative to where the configuration lies.
        for path in middleware.paths_mut() {
            *path = reader.in_folder(path);
        }
        draft.table.middlewares.insert(MiddlewareId(entry.key.to_owned()), middleware);
        draft.place(reader, "middlewares", entry.key, entry);
    }
}
