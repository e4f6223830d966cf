// Lists the exams that the server knows.
fetch("/api/exams").then(answer => answer.json()).then(({ exams }) => {
  for (const { title, year } of exams) {
    const item = document.createElement("li");
    item.textContent = `${title} (${year})`;
    document.querySelector("#exams").append(item);
  }
});
