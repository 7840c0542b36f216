// What mdBook has no setting for.

(() => {
    // A session: what is copied is what was typed, without prompt and output.
    for (const code of document.querySelectorAll('code.language-console')) {
        const lines = code.textContent.trimEnd().split('\n');
        const typed = lines.filter(line => line.startsWith('$ '));
        code.dataset.typed = typed.map(line => line.slice(2)).join('\n');
        code.replaceChildren(...lines.flatMap(line => {
            if (!line.startsWith('$ ')) {
                return [`${line}\n`];
            }
            return [span('prompt', '$ '), span('typed', line.slice(2)), '\n'];
        }));
    }

    function span(name, text) {
        const element = document.createElement('span');
        element.className = name;
        element.textContent = text;
        return element;
    }

    document.addEventListener('click', event => {
        const button = event.target.closest('.clip-button');
        const typed = button?.closest('pre').querySelector('[data-typed]');
        if (typed) {
            event.stopPropagation();
            copy(typed.dataset.typed);
            button.firstChild.innerText = 'Copied!';
            button.classList.add('tooltipped');
        }
    }, true);

    // navigator.clipboard is not there on every page from a USB stick.
    function copy(text) {
        const area = document.createElement('textarea');
        area.value = text;
        document.body.append(area);
        area.select();
        document.execCommand('copy');
        area.remove();
    }

    // A diff is for reading.
    for (const code of document.querySelectorAll('code.language-diff')) {
        code.parentNode.querySelector('.buttons')?.remove();
    }

    // What scrolls by itself is reached by Tab, and the arrow keys, which turn
    // pages elsewhere, scroll it.
    for (const wide of document.querySelectorAll('pre > code, .table-wrapper')) {
        if (wide.scrollWidth > wide.clientWidth) {
            wide.tabIndex = 0;
            wide.addEventListener('keydown', event => {
                if (event.key.startsWith('Arrow')) {
                    event.stopPropagation();
                }
            });
        }
    }

    // On paper there is nothing to unfold.
    const unfold = () => {
        for (const folded of document.querySelectorAll('details')) {
            folded.open = true;
        }
    };
    if (location.pathname.endsWith('/print.html')) {
        unfold();
    }
    window.addEventListener('beforeprint', unfold);
})();
