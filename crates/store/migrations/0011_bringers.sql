-- Who brought what waits: the administrator, a person, or a forge. So far it was a person's name or nothing.
UPDATE deployments
SET approval = json_set(
    json_remove(approval, '$.asked_by'),
    '$.brought_by',
    json(CASE
        WHEN json_extract(approval, '$.asked_by') IS NULL THEN '"administrator"'
        ELSE json_object('person', json_extract(approval, '$.asked_by'))
    END)
)
WHERE approval IS NOT NULL;
